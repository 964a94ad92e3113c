"""From records on disk to a table, fits, figures and a report. Imports no torch and no part of saescale that trains."""
