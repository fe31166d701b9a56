"""Runs beside each other: in what their settings, code, data, environment and results differ. Pure: no file is read, nobody is asked."""
