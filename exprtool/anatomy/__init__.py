"""What a face shows and which controls an expression moves; shared by every backend."""
