"""One module per `hotmatte` command: arguments in, words and an exit status out.

May touch: everything the command is about, through the rooms that own it.
Must never: hold logic that another command or the daemon needs as well.
"""
