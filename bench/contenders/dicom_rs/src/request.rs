/* SPDX-License-Identifier: MIT */

//! The requestor: AT_ONCE threads, each with one association after another.

use crate::{IMPLICIT, STORAGE, VERIFICATION, command};
use dicom_ul::association::{Association as _, ClientAssociation, Error};
use dicom_ul::pdu::{
    AssociationRJ, AssociationRJResult, AssociationRJServiceUserReason, AssociationRJSource,
    PDataValue,
};
use dicom_ul::{ClientAssociationOptions, Pdu};
use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

type Association = ClientAssociation<TcpStream>;
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const STORAGE_CONTEXT: u8 = 3;

struct Requestor {
    options: ClientAssociationOptions<'static>,
    echo_rq: PDataValue,
    store_rq: PDataValue,
}

struct Order {
    port: u16,
    count: usize,
    at_once: usize,
    size: u32,
}

pub fn main(directory: &str) {
    let requestor = Requestor {
        options: ClientAssociationOptions::new()
            .calling_ae_title("BENCH")
            .called_ae_title("ARCHIVE")
            .with_presentation_context(VERIFICATION, vec![IMPLICIT])
            .with_presentation_context(STORAGE, vec![IMPLICIT])
            .max_pdu_length(16384),
        echo_rq: command::from_file(directory, "echo-rq.bin"),
        store_rq: command::from_file(directory, "store-rq.bin"),
    };
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("standard input");
        match requestor.carry_out(&line) {
            Ok(taken) => println!("{}", taken.as_nanos()),
            Err(error) => println!("error {}", error.to_string().replace('\n', " ")),
        }
        std::io::stdout().flush().expect("standard output");
    }
}

impl Requestor {
    fn carry_out(&self, line: &str) -> Outcome<Duration> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [mode, port, count, at_once, size] = words[..] else {
            return Err("MODE PORT COUNT AT_ONCE SIZE".into());
        };
        let order = Order {
            port: port.parse()?,
            count: count.parse()?,
            at_once: at_once.parse()?,
            size: size.parse()?,
        };
        match mode {
            "reject" => many(&order, || self.be_rejected(order.port)),
            "echo" => many(&order, || {
                let mut association = self.associate(order.port)?;
                self.echo(&mut association, &self.echo_pdu())?;
                Ok(association.release()?)
            }),
            "latency" => self.latency(&order),
            "send" => self.send(&order),
            _ => Err("unsupported".into()),
        }
    }

    fn associate(&self, port: u16) -> Outcome<Association> {
        let mut association = self.options.clone().establish((Ipv4Addr::LOCALHOST, port))?;
        association.inner_stream().set_nodelay(true)?;
        Ok(association)
    }

    /// The library answers an A-ASSOCIATE-RJ with an A-ABORT before it closes.
    fn be_rejected(&self, port: u16) -> Outcome<()> {
        let codes = AssociationRJ {
            result: AssociationRJResult::Permanent,
            source: AssociationRJSource::ServiceUser(
                AssociationRJServiceUserReason::CalledAETitleNotRecognized,
            ),
        };
        match self.options.clone().establish((Ipv4Addr::LOCALHOST, port)) {
            Err(Error::Rejected { association_rj, .. }) if association_rj == codes => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err("not rejected".into()),
        }
    }

    fn echo_pdu(&self) -> Pdu {
        Pdu::PData { data: vec![self.echo_rq.clone()] }
    }

    fn echo(&self, association: &mut Association, request: &Pdu) -> Outcome<()> {
        association.send(request)?;
        match command::succeeds(&association.receive()?, command::ECHO_RSP, &self.echo_rq) {
            true => Ok(()),
            false => Err("echo: another response".into()),
        }
    }

    fn latency(&self, order: &Order) -> Outcome<Duration> {
        let mut association = self.associate(order.port)?;
        let request = self.echo_pdu();
        let start = Instant::now();
        for _ in 0..order.count {
            self.echo(&mut association, &request)?;
        }
        let taken = start.elapsed();
        association.release()?;
        Ok(taken)
    }

    fn send(&self, order: &Order) -> Outcome<Duration> {
        let content = vec![0; order.count];
        let start = Instant::now();
        at_once(order.at_once, || {
            let mut association = self.associate(order.port)?;
            self.store(&mut association, order.size, &content)?;
            Ok(association.release()?)
        })?;
        Ok(start.elapsed())
    }

    fn store(&self, association: &mut Association, size: u32, content: &[u8]) -> Outcome<()> {
        if association.peer_max_pdu_length() != size {
            return Err("the library sends PDUs of the acceptor's maximum".into());
        }
        association.send(&Pdu::PData { data: vec![self.store_rq.clone()] })?;
        let mut writer = association.send_pdata(STORAGE_CONTEXT);
        writer.write_all(content)?;
        writer.finish()?;
        match command::succeeds(&association.receive()?, command::STORE_RSP, &self.store_rq) {
            true => Ok(()),
            false => Err("store: another response".into()),
        }
    }
}

fn many(order: &Order, each: impl Fn() -> Outcome<()> + Sync) -> Outcome<Duration> {
    let left = AtomicI64::new(order.count as i64);
    let start = Instant::now();
    at_once(order.at_once, || {
        while left.fetch_sub(1, Ordering::Relaxed) > 0 {
            each()?;
        }
        Ok(())
    })?;
    Ok(start.elapsed())
}

/// Runs `work` in `threads` threads; returns the first error of any of them.
fn at_once(threads: usize, work: impl Fn() -> Outcome<()> + Sync) -> Outcome<()> {
    if threads == 1 {
        return work();
    }
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        running.into_iter().try_for_each(|thread| thread.join().expect("a thread ends"))
    })
}
