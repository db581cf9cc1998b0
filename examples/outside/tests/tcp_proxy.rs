//! The program tcp-proxy, as its users run it: a process between clients and a target.

use std::io::{BufRead, BufReader, ErrorKind, Lines, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

const MEBIBYTE: usize = 1024 * 1024;
const BOTH: [&[&str]; 2] = [&["--spin", "0"], &["--spin", "100"]];

/// A proxy that runs until [`Proxy::end`].
struct Proxy {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
}

impl Proxy {
    fn start(target: SocketAddr, options: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tcp-proxy"))
            .args(["--to", &target.to_string()])
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let address = first.strip_prefix("listening on ").unwrap().parse().unwrap();
        Self { process, lines, address }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    fn signal(&self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// What it says of itself at its graceful end.
    fn end(mut self) -> String {
        self.signal();
        let said = self.lines.next().unwrap().unwrap();
        assert!(self.process.wait().unwrap().success());
        said
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill(); // of a test that failed
        let _ = self.process.wait();
    }
}

/// Random bytes that a seed decides (xorshift64).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(seed: u64) -> Vec<u8> {
        let mut random = Self::new(seed);
        (0..MEBIBYTE / 8).flat_map(|_| random.next().to_le_bytes()).collect()
    }
}

/// FNV-1a, of bytes as they come.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Reads to the end in uneven pieces. A slow one lets the proxy's buffer and the kernel's run full.
fn read_all(mut from: &TcpStream, seed: u64, slow: bool) -> Vec<u8> {
    let mut random = Random::new(seed);
    let (mut all, mut piece) = (Vec::new(), vec![0; 40_000]);
    loop {
        let most = 1 + usize::try_from(random.next() % 40_000).unwrap();
        let count = from.read(&mut piece[..most]).unwrap();
        if count == 0 {
            return all;
        }
        all.extend_from_slice(&piece[..count]);
        if slow {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Writes what the seed decides, ends this direction, and reads the other one meanwhile.
fn exchange(socket: TcpStream, seed: u64, slow: bool) -> u64 {
    let mut writing = socket.try_clone().unwrap();
    let writer = thread::spawn(move || {
        writing.write_all(&Random::bytes(seed)).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    let read = read_all(&socket, seed, slow);
    writer.join().unwrap();
    assert_eq!(read.len(), MEBIBYTE);
    hash(&read)
}

/// 50 clients at once; both directions carry a mebibyte each, and of each pair one side is slow.
fn fifty_connections(options: &[&str]) {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(target.local_addr().unwrap(), options);
    let target = thread::spawn(move || {
        let connections = (0..50).map(|index| {
            let (mut socket, _) = target.accept().unwrap();
            thread::spawn(move || {
                let mut name = [0; 8];
                socket.read_exact(&mut name).unwrap();
                let client = u64::from_le_bytes(name);
                (client, exchange(socket, client + 1000, index % 2 == 0))
            })
        });
        let connections: Vec<_> = connections.collect();
        connections.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let clients: Vec<_> = (0..50_u64)
        .map(|client| {
            let mut socket = proxy.connect();
            thread::spawn(move || {
                socket.write_all(&client.to_le_bytes()).unwrap();
                exchange(socket, client, client % 3 == 0)
            })
        })
        .collect();
    for (client, thread) in (0..).zip(clients) {
        let received = thread.join().unwrap();
        assert_eq!(received, hash(&Random::bytes(client + 1000)), "what client {client} got");
    }
    for (client, received) in target.join().unwrap() {
        assert_eq!(received, hash(&Random::bytes(client)), "what came from client {client}");
    }
    let bytes = 50 * (2 * MEBIBYTE + 8);
    assert_eq!(proxy.end(), format!("50 connections, 0 failed, {bytes} bytes"));
}

#[test]
fn fifty_connections_pass_unchanged_without_spinning() {
    fifty_connections(&["--monitor", "epoll"]);
}

#[test]
fn fifty_connections_pass_unchanged_with_spinning() {
    fifty_connections(&["--spin", "100"]);
}

#[test]
fn fifty_connections_pass_unchanged_eight_at_a_time() {
    fifty_connections(&["--monitor", "poll", "--spin", "20", "--most", "8"]);
}

#[test]
fn one_direction_ends_and_the_other_goes_on() {
    for options in BOTH {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(target.local_addr().unwrap(), options);
        let mut client = proxy.connect();
        let (mut socket, _) = target.accept().unwrap();
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut question = String::new();
        socket.read_to_string(&mut question).unwrap();
        assert_eq!(question, "question");
        socket.write_all(b"answer").unwrap();
        drop(socket);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
        assert_eq!(proxy.end(), "1 connections, 0 failed, 14 bytes");
    }
}

#[test]
fn a_target_that_does_not_read_stops_the_client_and_loses_nothing() {
    for options in BOTH {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(target.local_addr().unwrap(), options);
        let mut client = proxy.connect();
        let (socket, _) = target.accept().unwrap();
        client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let (data, mut sent) = (Random::bytes(7), Vec::new());
        // The buffers of four sockets in the kernel hold some mebibytes; a proxy without
        // back-pressure would take all of this.
        let stopped = (0..256).any(|_| match client.write(&data) {
            Ok(count) => {
                sent.extend_from_slice(&data[..count]);
                false
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                true
            }
        });
        assert!(stopped, "256 MiB were taken from the client and read by nobody");
        client.shutdown(Shutdown::Write).unwrap();
        let received = read_all(&socket, 7, false);
        assert_eq!((received.len(), hash(&received)), (sent.len(), hash(&sent)));
        drop(socket);
        assert_eq!(proxy.end(), format!("1 connections, 0 failed, {} bytes", sent.len()));
    }
}

#[test]
fn a_target_that_refuses_closes_the_client() {
    for options in BOTH {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(target.local_addr().unwrap(), options);
        drop(target);
        let mut byte = [0];
        assert!(matches!(proxy.connect().read(&mut byte), Ok(0) | Err(_)));
        assert_eq!(proxy.end(), "1 connections, 1 failed, 0 bytes");
    }
}

#[test]
fn after_the_signal_connections_go_on_and_none_is_accepted() {
    for options in BOTH {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut proxy = Proxy::start(target.local_addr().unwrap(), options);
        let mut client = proxy.connect();
        let (mut socket, _) = target.accept().unwrap();
        proxy.signal();
        while TcpStream::connect(proxy.address).is_ok() {
            thread::yield_now(); // the kernel still takes them until the signal was read
        }
        let mut piece = [0; 4];
        client.write_all(b"late").unwrap();
        socket.read_exact(&mut piece).unwrap();
        assert_eq!(&piece, b"late");
        drop(client);
        assert_eq!(socket.read(&mut piece).unwrap(), 0);
        drop(socket);
        let said = proxy.lines.next().unwrap().unwrap();
        assert!(said.ends_with(" 4 bytes"), "{said}");
        assert!(proxy.process.wait().unwrap().success(), "it ended by itself");
    }
}

#[test]
fn an_option_that_there_is_not_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_tcp-proxy")).arg("--spinn").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "tcp-proxy: --spinn is no option; try --help\n");
}
