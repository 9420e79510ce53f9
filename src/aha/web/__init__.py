"""The dashboard and the report: reads run folders, never trains, knows no torch."""
