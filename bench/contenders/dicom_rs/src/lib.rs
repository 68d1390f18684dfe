/* SPDX-License-Identifier: MIT */

//! The codec contender over dicom-ul: `read_pdu` and `write_pdu`.
//!
//! The library keeps the reason of an A-ABORT only where its source is the provider; other answers
//! leave it out.

use bytes::{Buf, Bytes};
use dicom_ul::pdu::{
    AbortRQServiceProviderReason, AbortRQSource, AssociationRJServiceProviderASCEReason,
    AssociationRJServiceProviderPresentationReason, AssociationRJServiceUserReason,
    AssociationRJSource, MAXIMUM_PDU_SIZE, PDataValue, PDataValueType, UserVariableItem,
};
use dicom_ul::{Pdu, read_pdu, write_pdu};
use std::ffi::{CStr, c_char};
use std::fmt::Write;
use std::hint::black_box;
use std::time::Instant;

/// The first PDU of `data`, which is removed from it. The library copies from a slice, but shares
/// `Bytes`; these are static, so sharing them counts no references.
fn decode(data: &mut Bytes) -> Option<Pdu> {
    read_pdu(data, MAXIMUM_PDU_SIZE, true).ok().flatten()
}

fn decode_all(data: &Bytes) -> Option<usize> {
    let mut rest = data.clone();
    let mut count = 0;
    while rest.has_remaining() {
        black_box(decode(&mut rest)?);
        count += 1;
    }
    Some(count)
}

fn encode(buffer: &mut Vec<u8>, pdu: &Pdu) -> Option<()> {
    buffer.clear();
    write_pdu(buffer, pdu).ok()
}

fn time(count: u64, mut work: impl FnMut() -> Option<()>) -> Option<u64> {
    let start = Instant::now();
    for _ in 0..count {
        work()?;
    }
    Some((start.elapsed().as_nanos() as u64).max(1))
}

fn run(operation: &[u8], data: Bytes, count: u64) -> Option<u64> {
    match operation {
        b"decode" => time(count, || {
            let pdu = decode(&mut black_box(&data).clone())?;
            drop(black_box(pdu));
            Some(())
        }),
        b"encode" => {
            let pdu = decode(&mut data.clone())?;
            let mut buffer = Vec::with_capacity(data.len());
            time(count, || {
                encode(&mut buffer, black_box(&pdu))?;
                black_box(&buffer);
                Some(())
            })
        }
        b"stream" => time(count, || decode_all(black_box(&data)).map(|_| ())),
        _ => None,
    }
}

fn user_lines(out: &mut String, items: &[UserVariableItem]) {
    for item in items {
        if let UserVariableItem::MaxLength(max) = item {
            writeln!(out, "user max={max}").unwrap();
        }
    }
    for item in items {
        if let UserVariableItem::ImplementationClassUID(uid) = item {
            writeln!(out, "user class={uid}").unwrap();
        }
    }
    for item in items {
        if let UserVariableItem::ImplementationVersionName(name) = item {
            writeln!(out, "user name={name}").unwrap();
        }
    }
}

fn source_and_reason(source: &AssociationRJSource) -> (u8, u8) {
    match source {
        AssociationRJSource::ServiceUser(reason) => {
            use AssociationRJServiceUserReason::*;
            let code = match reason {
                NoReasonGiven => 1,
                ApplicationContextNameNotSupported => 2,
                CallingAETitleNotRecognized => 3,
                CalledAETitleNotRecognized => 7,
                Reserved(code) => *code,
            };
            (1, code)
        }
        AssociationRJSource::ServiceProviderASCE(reason) => {
            use AssociationRJServiceProviderASCEReason::*;
            let code = match reason {
                NoReasonGiven => 1,
                ProtocolVersionNotSupported => 2,
            };
            (2, code)
        }
        AssociationRJSource::ServiceProviderPresentation(reason) => {
            use AssociationRJServiceProviderPresentationReason::*;
            let code = match reason {
                TemporaryCongestion => 1,
                LocalLimitExceeded => 2,
                Reserved(code) => *code,
            };
            (3, code)
        }
    }
}

fn abort_line(out: &mut String, source: &AbortRQSource) {
    match source {
        AbortRQSource::ServiceUser => writeln!(out, "A-ABORT source=0"),
        AbortRQSource::Reserved => writeln!(out, "A-ABORT source=1"),
        AbortRQSource::ServiceProvider(reason) => {
            use AbortRQServiceProviderReason::*;
            let code = match reason {
                ReasonNotSpecified => 0,
                UnrecognizedPdu => 1,
                UnexpectedPdu => 2,
                Reserved => 3,
                UnrecognizedPduParameter => 4,
                UnexpectedPduParameter => 5,
                InvalidPduParameter => 6,
            };
            writeln!(out, "A-ABORT source=2 reason={code}")
        }
    }
    .unwrap();
}

fn value_line(out: &mut String, value: &PDataValue) {
    let sum = value.data.iter().fold(0u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    writeln!(
        out,
        "pdv id={} command={} last={} size={} sum={sum}",
        value.presentation_context_id,
        u8::from(value.value_type == PDataValueType::Command),
        u8::from(value.is_last),
        value.data.len(),
    )
    .unwrap();
}

fn describe(out: &mut String, pdu: &Pdu) {
    match pdu {
        Pdu::AssociationRQ(rq) => {
            writeln!(
                out,
                "A-ASSOCIATE-RQ version={} called={} calling={} application={}",
                rq.protocol_version,
                rq.called_ae_title,
                rq.calling_ae_title,
                rq.application_context_name,
            )
            .unwrap();
            for context in &rq.presentation_contexts {
                write!(out, "context {} abstract={}", context.id, context.abstract_syntax).unwrap();
                for syntax in &context.transfer_syntaxes {
                    write!(out, " transfer={syntax}").unwrap();
                }
                out.push('\n');
            }
            user_lines(out, &rq.user_variables);
        }
        Pdu::AssociationAC(ac) => {
            writeln!(
                out,
                "A-ASSOCIATE-AC version={} called={} calling={} application={}",
                ac.protocol_version,
                ac.called_ae_title,
                ac.calling_ae_title,
                ac.application_context_name,
            )
            .unwrap();
            for context in &ac.presentation_contexts {
                let (id, result) = (context.id, context.reason.clone() as u8);
                let syntax = &context.transfer_syntax;
                writeln!(out, "context {id} result={result} transfer={syntax}").unwrap();
            }
            user_lines(out, &ac.user_variables);
        }
        Pdu::AssociationRJ(rj) => {
            let (source, reason) = source_and_reason(&rj.source);
            let result = rj.result.clone() as u8;
            writeln!(out, "A-ASSOCIATE-RJ result={result} source={source} reason={reason}")
                .unwrap();
        }
        Pdu::PData { data } => {
            out.push_str("P-DATA-TF\n");
            for value in data {
                value_line(out, value);
            }
        }
        Pdu::ReleaseRQ => out.push_str("A-RELEASE-RQ\n"),
        Pdu::ReleaseRP => out.push_str("A-RELEASE-RP\n"),
        Pdu::AbortRQ { source } => abort_line(out, source),
        Pdu::Unknown { pdu_type, .. } => writeln!(out, "unknown type={pdu_type}").unwrap(),
    }
}

fn answer(operation: &[u8], mut data: Bytes) -> Option<Vec<u8>> {
    match operation {
        b"encode" => {
            let mut buffer = Vec::new();
            encode(&mut buffer, &decode(&mut data)?)?;
            Some(buffer)
        }
        b"decode" => {
            let mut text = String::new();
            describe(&mut text, &decode(&mut data)?);
            Some(text.into_bytes())
        }
        b"stream" => {
            let mut text = String::new();
            while data.has_remaining() {
                describe(&mut text, &decode(&mut data)?);
            }
            Some(text.into_bytes())
        }
        _ => None,
    }
}

/// # Safety
///
/// `operation` is a C string, `data` points to `size` bytes; no `Bytes` outlives the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bench_run(
    operation: *const c_char,
    data: *const u8,
    size: usize,
    count: u64,
) -> u64 {
    let (operation, data) = unsafe { arguments(operation, data, size) };
    run(operation, data, count).unwrap_or(0)
}

/// # Safety
///
/// The conditions of `bench_run` hold; `out` has room for `room` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bench_answer(
    operation: *const c_char,
    data: *const u8,
    size: usize,
    out: *mut u8,
    room: usize,
) -> usize {
    let (operation, data) = unsafe { arguments(operation, data, size) };
    match answer(operation, data) {
        Some(answer) if answer.len() <= room => {
            unsafe { std::ptr::copy_nonoverlapping(answer.as_ptr(), out, answer.len()) };
            answer.len()
        }
        _ => 0,
    }
}

unsafe fn arguments<'a>(
    operation: *const c_char,
    data: *const u8,
    size: usize,
) -> (&'a [u8], Bytes) {
    let operation = unsafe { CStr::from_ptr(operation) }.to_bytes();
    let data: &'static [u8] = unsafe { std::slice::from_raw_parts(data, size) };
    (operation, Bytes::from_static(data))
}
