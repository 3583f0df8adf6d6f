"""The command line: a verb, a task, a stack. Try `python run.py --help`."""

from cli.app import main

if __name__ == "__main__":
    main()
