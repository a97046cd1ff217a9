"""Pictures in and out: formats, decoding, encoding, and what a file holds beyond its pixels."""
