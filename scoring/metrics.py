CONTENT_TYPE = "text/plain"


class WorkerMetrics:
    def began(self):
        pass

    def ended(self, *a):
        pass

    def observe(self, f):
        pass

    def fold(self):
        pass


class Metrics:
    def __init__(self, contract, workers):
        pass

    def worker(self, index):
        return WorkerMetrics()

    def release(self, index):
        pass

    def render(self):
        return b"# x\n"
