def connect(environ, contract):
    return None


def check(environ):
    pass


class Telemetry:
    pass
