"""Breaking runs on purpose, to see that nothing is lost: `python -m tools.chaos`.

Each section breaks something many times, counts, and names what did not hold. The tests call the same functions a few times.
"""
