"""Clips in and out: the only place where video files are read and written.

``clip`` says what a file is, ``reader`` gives its frames with their time stamps, ``picture`` reads and edits their own
samples, ``encoder`` and ``segments`` make finished pieces that survive a crash, ``container`` joins them with the sound
and everything else of the input, ``animation`` does GIF and WebP.
"""
