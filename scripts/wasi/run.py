# Runs a program for WASI in wasmtime: python3 run.py FOLDER PROGRAM ARGUMENTS...; FOLDER is its /tmp.
import sys

import wasmtime

folder, program, *args = sys.argv[1:]
engine = wasmtime.Engine()
store = wasmtime.Store(engine)
config = wasmtime.WasiConfig()
config.argv = ["program", *args]
config.env = [("RUST_BACKTRACE", "0")]
config.preopen_dir(folder, "/tmp")
config.inherit_stdin()
config.inherit_stdout()
config.inherit_stderr()
store.set_wasi(config)
linker = wasmtime.Linker(engine)
linker.define_wasi()
instance = linker.instantiate(store, wasmtime.Module.from_file(engine, program))
try:
    instance.exports(store)["_start"](store)
except wasmtime.ExitTrap as trap:
    sys.exit(trap.code)
except wasmtime.WasmtimeError as error:
    print(error, file=sys.stderr)
    sys.exit(101)
