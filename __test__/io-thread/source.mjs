// The module of most I/O threads of the tests: it runs a piece of code that comes with it, as if that were its own text.
import * as threads from 'node:worker_threads'
import * as fdmon from 'fdmon'
import * as fds from 'fdmon/fd'

const { source, data } = threads.workerData
const AsyncFunction = (async () => {}).constructor
await new AsyncFunction('ctx', 'data', 'fdmon', 'fds', 'threads', source)(fdmon.currentContext(), data, fdmon, fds, threads)
