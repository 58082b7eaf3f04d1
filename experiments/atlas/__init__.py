"""An atlas of when batch norm helps: small networks over depth, rate, batch size, init and norm."""
