"""What people look at: the gallery of before and after, and the sheet of strengths."""
