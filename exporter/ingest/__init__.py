"""Bytes from the world: sources bring messages in order, codecs turn them into columns.

A source awaits its sink before it reads on: that is all the back-pressure there is. A codec never raises on data; what
it cannot read is in its account with a reason, and its neighbours are untouched.
"""
