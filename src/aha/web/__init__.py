"""The dashboard and the report: reads run folders, never trains, imports no torch."""
