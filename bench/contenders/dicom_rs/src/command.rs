/* SPDX-License-Identifier: MIT */

//! The part of DIMSE that the modes need.

use dicom_ul::pdu::PDataValue;
use dicom_ul::{Pdu, read_pdu};
use std::ops::Range;
use std::path::Path;

pub const ECHO_RQ: u16 = 0x0030;
pub const ECHO_RSP: u16 = 0x8030;
pub const STORE_RQ: u16 = 0x0001;
pub const STORE_RSP: u16 = 0x8001;

const FIELD: u16 = 0x0100;
const MESSAGE: u16 = 0x0110;
const ANSWERED: u16 = 0x0120;
const STATUS: u16 = 0x0900;

/// The command in the P-DATA-TF of a file.
pub fn from_file(directory: &str, name: &str) -> PDataValue {
    let path = Path::new(directory).join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    match read_pdu(&bytes[..], 16384, true) {
        Ok(Some(Pdu::PData { data })) => data.into_iter().next().expect("a PDV"),
        other => panic!("{}: {other:?}", path.display()),
    }
}

/// The place of the two bytes of element (0000,eeee); commands are Implicit VR Little Endian.
fn number_at(command: &[u8], element: u16) -> Option<Range<usize>> {
    let mut at = 0;
    while let Some(header) = command.get(at..at + 8) {
        let length = u32::from_le_bytes(header[4..].try_into().unwrap()) as usize;
        if header[..2] == [0, 0] && header[2..4] == element.to_le_bytes() {
            return (length == 2 && at + 10 <= command.len()).then_some(at + 8..at + 10);
        }
        at = at.checked_add(8 + length)?;
    }
    None
}

fn number(command: &[u8], element: u16) -> Option<u16> {
    let bytes = command.get(number_at(command, element)?)?;
    Some(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// Command Field (0000,0100).
pub fn kind(command: &[u8]) -> Option<u16> {
    number(command, FIELD)
}

/// The response to `request`: `model` with its message ID and its presentation context.
pub fn answer(model: &PDataValue, request: &PDataValue) -> Option<Pdu> {
    let mut value = model.clone();
    let message = request.data.get(number_at(&request.data, MESSAGE)?)?;
    let place = number_at(&value.data, ANSWERED)?;
    value.data[place].copy_from_slice(message);
    value.presentation_context_id = request.presentation_context_id;
    Some(Pdu::PData { data: vec![value] })
}

/// Is `pdu` the response of this kind to `request`, with status success?
pub fn succeeds(pdu: &Pdu, kind_of_response: u16, request: &PDataValue) -> bool {
    let Pdu::PData { data } = pdu else { return false };
    let [value] = &data[..] else { return false };
    value.presentation_context_id == request.presentation_context_id
        && kind(&value.data) == Some(kind_of_response)
        && number(&value.data, ANSWERED) == number(&request.data, MESSAGE)
        && number(&value.data, STATUS) == Some(0)
}
