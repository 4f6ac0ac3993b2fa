"""Who is who: accounts, log-ins, tokens, roles, and who may do what."""
