"""What a face shows: parts of it that an edit uncovers."""
