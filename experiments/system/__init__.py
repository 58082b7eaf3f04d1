"""The operating system: devices, processes, files, locks, interrupts, progress bars."""
