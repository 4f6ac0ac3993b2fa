"""What others say in words, as a terminal or a log may show it."""


def plain(text: str) -> str:
    """Nothing in it moves the cursor, begins another line or hides what was said."""
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text)


def left(why: str) -> str:
    """Of a peer that has said goodbye."""
    return f"the peer has left{': ' + why if why else ''}"
