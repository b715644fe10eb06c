"""The one exception for what a user can put right."""


class InputError(ValueError):
    """Something given to the program is wrong; its message says what, which value, and the way out.

    The command line prints the message alone and exits with code 2.
    """
