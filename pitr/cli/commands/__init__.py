"""One module per group of commands: a function that gives a result, and a renderer of it as text."""
