"""Finding faces, their landmarks, which of them to edit, and the crops that networks see."""
