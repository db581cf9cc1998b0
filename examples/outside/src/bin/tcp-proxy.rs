//! tcp-proxy: carries TCP connections to a target. See `fdmon_outside::proxy`.
//!
//! Prints the address it listens on, and at the end what it did. SIGTERM and SIGINT end it when its
//! connections have ended; a second one ends it at once.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use fdmon::Handlers;
use fdmon_outside::Failure;
use fdmon_outside::options::{LoopOptions, exit};
use fdmon_outside::proxy::Proxy;
use fdmon_outside::signals::signal_fd;
use lexopt::{Arg, Parser, ValueExt};

const USAGE: &str = "\
usage: tcp-proxy --to HOST:PORT [options]

  --listen ADDRESS     where clients connect (127.0.0.1:0)
  --most COUNT         connections at once; others wait (1024)
  --grace SECONDS      how long connections may go on after SIGTERM (10)";

struct Options {
    listen: SocketAddr,
    target: SocketAddr,
    most: usize,
    grace: Duration,
    for_loop: LoopOptions,
}

fn main() -> ExitCode {
    exit("tcp-proxy", read_options().and_then(|options| options.map_or(Ok(()), run)))
}

/// None = only the usage was asked for.
fn read_options() -> Result<Option<Options>, Failure> {
    let mut listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let (mut target, mut most, mut grace) = (None, 1024, Duration::from_secs(10));
    let mut for_loop = LoopOptions::default();
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        let Arg::Long(name) = arg else { return Err(arg.unexpected().into()) };
        match name.to_owned().as_str() {
            "listen" => listen = parser.value()?.parse()?,
            "to" => target = Some(resolve(&parser.value()?.string()?)?),
            "most" => most = parser.value()?.parse()?,
            "grace" => grace = Duration::from_secs(parser.value()?.parse()?),
            "help" => {
                println!("{USAGE}\n{}", LoopOptions::USAGE);
                return Ok(None);
            }
            other => {
                if !for_loop.take(other, &mut parser)? {
                    return Err(format!("--{other} is no option; try --help").into());
                }
            }
        }
    }
    let target = target.ok_or("--to is missing; try --help")?;
    Ok(Some(Options { listen, target, most, grace, for_loop }))
}

fn resolve(name: &str) -> Result<SocketAddr, Failure> {
    let mut found = name.to_socket_addrs().map_err(|error| format!("--to '{name}': {error}"))?;
    Ok(found.next().ok_or_else(|| format!("--to '{name}': no address"))?)
}

fn run(options: Options) -> Result<(), Failure> {
    let signals = signal_fd(&[libc::SIGTERM, libc::SIGINT])?;
    let ctx = options.for_loop.build()?;
    let listener = TcpListener::bind(options.listen)?;
    println!("listening on {}", listener.local_addr()?);
    let proxy = Proxy::start(&ctx, listener, options.target, options.most)?;

    let ending = proxy.clone();
    let on_signal = Handlers::new().read(move |ops| {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        rustix::io::read(ops.fd(), &mut record)?;
        Ok(ending.end(ops, options.grace)?)
    });
    ctx.set_fd_handler(signals, on_signal)?;
    ctx.run()?;

    let (counts, stats) = (proxy.counts(), ctx.stats());
    println!("{} connections, {} failed, {} bytes", counts.accepted, counts.failed, counts.bytes);
    println!(
        "{}: {} turns, {} sleeps, {} events found by spinning",
        ctx.monitor(),
        stats.turns,
        stats.sleeps,
        stats.spin_hits
    );
    Ok(())
}
