/* SPDX-License-Identifier: MIT */

//! The acceptor: threads wait for the next connection; one more is started when few are left.

use crate::{IMPLICIT, STORAGE, VERIFICATION, command};
use dicom_ul::association::server::{AccessControl, DefaultNegotiation};
use dicom_ul::association::{Error, ServerAssociation};
use dicom_ul::pdu::{PDataValue, PDataValueType};
use dicom_ul::{Pdu, ServerAssociationOptions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;

/// Least number of threads that wait for a connection. (The standard library listens with a backlog
/// of 4096 or the limit of the system.)
const SPARE: i64 = 2;

type Options<A> = ServerAssociationOptions<'static, A, DefaultNegotiation>;
type Association = ServerAssociation<TcpStream>;

struct Acceptor<A> {
    options: Options<A>,
    rejects: bool,
    listener: TcpListener,
    spare: AtomicI64,
    received: AtomicU64,
    echo_rsp: PDataValue,
    store_rsp: PDataValue,
}

pub fn main(mode: &str, directory: &str, max: u32) {
    let options = ServerAssociationOptions::new()
        .with_abstract_syntax(VERIFICATION)
        .with_abstract_syntax(STORAGE)
        .with_transfer_syntax(IMPLICIT)
        .max_pdu_length(max);
    match mode {
        "reject" => serve(options.accept_called_ae_title().ae_title("NOBODY"), true, directory),
        "echo" | "receive" => serve(options, false, directory),
        _ => panic!("no mode {mode}"),
    }
}

fn serve<A>(options: Options<A>, rejects: bool, directory: &str)
where
    A: AccessControl + Send + Sync + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("its number").port();
    let acceptor = Arc::new(Acceptor {
        options,
        rejects,
        listener,
        spare: AtomicI64::new(SPARE),
        received: AtomicU64::new(0),
        echo_rsp: command::from_file(directory, "echo-rsp.bin"),
        store_rsp: command::from_file(directory, "store-rsp.bin"),
    });
    for _ in 0..SPARE {
        let acceptor = Arc::clone(&acceptor);
        thread::spawn(move || accept_for_ever(acceptor));
    }
    println!("{port}");
    std::io::stdout().flush().expect("standard output");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).expect("standard input");
    std::process::exit(0);
}

fn accept_for_ever<A: AccessControl + Send + Sync + 'static>(acceptor: Arc<Acceptor<A>>) {
    loop {
        let accepted = acceptor.listener.accept();
        if acceptor.spare.fetch_sub(1, Ordering::Relaxed) <= SPARE {
            acceptor.spare.fetch_add(1, Ordering::Relaxed);
            let another = Arc::clone(&acceptor);
            thread::spawn(move || accept_for_ever(another));
        }
        if let Ok((stream, _)) = accepted {
            answer(&acceptor, stream);
        }
        acceptor.spare.fetch_add(1, Ordering::Relaxed);
    }
}

fn answer<A: AccessControl>(acceptor: &Acceptor<A>, stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    if acceptor.rejects {
        // The library closes a rejected connection; a second handle keeps it open until the
        // requestor closes.
        let kept = stream.try_clone().ok()?;
        return match acceptor.options.establish(stream) {
            Err(Error::Rejected { .. }) => wait_for_end(&kept),
            _ => None,
        };
    }
    converse(acceptor, acceptor.options.establish(stream).ok()?)
}

fn wait_for_end(mut stream: &TcpStream) -> Option<()> {
    let mut rest = [0; 64];
    while stream.read(&mut rest).ok()? > 0 {}
    Some(())
}

fn converse<A>(acceptor: &Acceptor<A>, mut association: Association) -> Option<()> {
    let mut store: Option<PDataValue> = None;
    loop {
        match association.receive().ok()? {
            Pdu::PData { data } => {
                for value in data {
                    let done = match value.value_type {
                        PDataValueType::Data => {
                            acceptor.received.fetch_add(value.data.len() as u64, Ordering::Relaxed);
                            if value.is_last { store.take() } else { None }
                        }
                        PDataValueType::Command => match command::kind(&value.data)? {
                            command::ECHO_RQ => Some(value),
                            command::STORE_RQ => {
                                store = Some(value);
                                None
                            }
                            _ => return None,
                        },
                    };
                    if let Some(request) = done {
                        association.send(&acceptor.response(&request)?).ok()?;
                    }
                }
            }
            Pdu::ReleaseRQ => {
                association.send(&Pdu::ReleaseRP).ok()?;
                return wait_for_end(association.inner_stream());
            }
            _ => return None,
        }
    }
}

impl<A> Acceptor<A> {
    fn response(&self, request: &PDataValue) -> Option<Pdu> {
        match command::kind(&request.data)? {
            command::ECHO_RQ => command::answer(&self.echo_rsp, request),
            _ => command::answer(&self.store_rsp, request),
        }
    }
}
