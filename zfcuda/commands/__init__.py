"""The commands of the command line, one module each: `add_parser(commands)` declares one, `run(arguments)` does it."""
