"""Training, networks and data that the claims share."""
