"""Carrying out a study, and the folder that it leaves: metrics, checkpoints, logs."""
