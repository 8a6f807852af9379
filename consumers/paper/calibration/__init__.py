"""Calibration: how often paper orders fill, measured on recordings."""
