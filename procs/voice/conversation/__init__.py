"""A spoken conversation, pure: what was heard, said and played, and the time, go in; what to do comes out."""
