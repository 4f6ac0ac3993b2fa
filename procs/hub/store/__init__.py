"""What lasts: the database, its tables and their migrations."""
