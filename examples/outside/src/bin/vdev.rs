//! vdev: a block device behind rings in shared memory. See `fdmon_outside::vdev`.
//!
//! `vdev device` serves a file until SIGTERM or SIGINT; `vdev driver` connects to it, and reads and
//! writes at random. The file is to be new: the driver expects zeroes.

use std::fs::OpenOptions;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::ExitCode;

use fdmon::{AioContext, Handlers};
use fdmon_outside::Failure;
use fdmon_outside::options::{LoopOptions, exit};
use fdmon_outside::signals::signal_fd;
use fdmon_outside::vdev::device::Disk;
use fdmon_outside::vdev::driver::Driver;
use fdmon_outside::vdev::server::serve;
use fdmon_outside::vdev::workload::{self, Plan};
use lexopt::{Arg, Parser, ValueExt};

const USAGE: &str = "\
usage: vdev device --socket PATH --file FILE [--size BYTES] [options]
       vdev driver --socket PATH [--requests COUNT] [--workers COUNT] [--seed NUMBER] [options]

  --size BYTES         make the file this large
  --requests COUNT     reads and writes altogether (100000)
  --workers COUNT      requests in flight (16)
  --seed NUMBER        decides what is random (1)";

#[derive(Default)]
struct Options {
    role: Option<String>,
    socket: Option<PathBuf>,
    file: Option<PathBuf>,
    size: Option<u64>,
    requests: Option<u64>,
    workers: Option<usize>,
    seed: Option<u64>,
    help: bool,
    for_loop: LoopOptions,
}

fn main() -> ExitCode {
    exit("vdev", read_options().and_then(run))
}

fn read_options() -> Result<Options, Failure> {
    let (mut options, mut parser) = (Options::default(), Parser::from_env());
    while let Some(arg) = parser.next()? {
        let name = match arg {
            Arg::Value(role) if options.role.is_none() => {
                options.role = Some(role.string()?);
                continue;
            }
            Arg::Long(name) => name.to_owned(),
            other => return Err(other.unexpected().into()),
        };
        match name.as_str() {
            "socket" => options.socket = Some(parser.value()?.into()),
            "file" => options.file = Some(parser.value()?.into()),
            "size" => options.size = Some(parser.value()?.parse()?),
            "requests" => options.requests = Some(parser.value()?.parse()?),
            "workers" => options.workers = Some(parser.value()?.parse()?),
            "seed" => options.seed = Some(parser.value()?.parse()?),
            "help" => options.help = true,
            other => {
                if !options.for_loop.take(other, &mut parser)? {
                    return Err(format!("--{other} is no option; try --help").into());
                }
            }
        }
    }
    Ok(options)
}

fn run(options: Options) -> Result<(), Failure> {
    if options.help {
        println!("{USAGE}\n{}", LoopOptions::USAGE);
        return Ok(());
    }
    let role = options.role.as_deref();
    // Before the context, whose file I/O may have threads.
    let signals = match role {
        Some("device") => Some(signal_fd(&[libc::SIGTERM, libc::SIGINT])?),
        _ => None,
    };
    let ctx = options.for_loop.build()?;
    if let Some(signals) = signals {
        ctx.set_fd_handler(
            signals,
            Handlers::new().read(|ops| {
                ops.stop();
                Ok(())
            }),
        )?;
    }
    match role {
        Some("device") => device(&ctx, &options)?,
        Some("driver") => driver(&ctx, &options)?,
        _ => return Err("say 'device' or 'driver'; try --help".into()),
    }
    let stats = ctx.stats();
    println!(
        "{}: {} sleeps, {} events found by spinning",
        ctx.monitor(),
        stats.sleeps,
        stats.spin_hits
    );
    Ok(())
}

fn device(ctx: &AioContext, options: &Options) -> Result<(), Failure> {
    let socket = options.socket.as_ref().ok_or("--socket is missing; try --help")?;
    let path = options.file.as_ref().ok_or("--file is missing; try --help")?;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    if let Some(size) = options.size {
        file.set_len(size)?;
    }
    let disk = Disk::new(file)?;
    let sectors = disk.sectors();
    let counts = serve(ctx, UnixListener::bind(socket)?, disk)?;
    println!("serving {sectors} sectors");
    ctx.run()?;
    std::fs::remove_file(socket)?;
    println!("{} requests, {} kicks", counts.get().requests, counts.get().kicks);
    Ok(())
}

fn driver(ctx: &AioContext, options: &Options) -> Result<(), Failure> {
    let socket = options.socket.as_ref().ok_or("--socket is missing; try --help")?;
    let requests = options.requests.unwrap_or(100_000);
    let (workers, seed) = (options.workers.unwrap_or(16), options.seed.unwrap_or(1));
    let driver = Driver::connect(ctx, socket)?;
    workload::run(ctx, &driver, Plan { requests, workers, seed })?;
    println!("{requests} requests, all as expected; {} calls", driver.calls());
    Ok(())
}
