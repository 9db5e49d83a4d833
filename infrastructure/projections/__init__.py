"""Read models: one file each holds its tables, its fold from events to rows and its queries."""
