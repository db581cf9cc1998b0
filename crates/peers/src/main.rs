//! fdmon and its peers at the same work, one program: `npm run bench:peers` counts and times it.
//!
//! ```text
//! peers WORKLOAD PEER [--ops N] [--of FDS] [--ready FDS] [--threads N] [--seconds N]
//! peers --list
//! ```
//!
//! Prints one line of JSON: what the measured part took. Each peer has a file in `peers`, with a function for each
//! workload that it has a way to do; `libuv/main.c` is the same in C. A workload of `--ops N` is run at two lengths,
//! and the difference is taken, so that what comes before and after cancels.

mod peers;
mod run;

use lexopt::ValueExt;

use run::{Outcome, Peer, Run};

fn main() -> Outcome {
    let mut run = Run::default();
    let mut names = Vec::new();
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("ops") => run.ops = parser.value()?.parse()?,
            lexopt::Arg::Long("of") => run.of = parser.value()?.parse()?,
            lexopt::Arg::Long("ready") => run.ready = parser.value()?.parse()?,
            lexopt::Arg::Long("threads") => run.threads = parser.value()?.parse()?,
            lexopt::Arg::Long("seconds") => run.seconds = parser.value()?.parse()?,
            lexopt::Arg::Long("list") => return list(),
            lexopt::Arg::Value(name) => names.push(name.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let [workload, peer] = names.as_slice() else {
        return Err("usage: peers WORKLOAD PEER [--ops N]; peers --list".into());
    };
    run.raise_limit();
    // "fdmon:epoll+spin": a peer, and which of its kinds.
    let (peer, kind) = peer.split_once(':').unwrap_or((peer, ""));
    kind.clone_into(&mut run.kind);
    let found = peers::ALL.iter().find(|Peer { name, .. }| *name == peer);
    let found = found.ok_or_else(|| format!("no peer '{peer}'; see --list"))?;
    let body = found.workloads.iter().find(|(name, _)| name == workload);
    let (_, body) = body.ok_or_else(|| format!("{peer} has no '{workload}'; see --list"))?;
    body(&run)?;
    println!("{}", run.report());
    Ok(())
}

/// `PEER WORKLOAD` a line.
fn list() -> Outcome {
    for peer in peers::ALL {
        for (workload, _) in peer.workloads {
            println!("{} {workload}", peer.name);
        }
    }
    Ok(())
}
