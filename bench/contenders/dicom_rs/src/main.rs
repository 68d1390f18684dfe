/* SPDX-License-Identifier: MIT */

//! The network contender over the associations of dicom-ul, blocking.
//!
//!     dicom_rs accept reject|echo|receive DIR [MAX]
//!     dicom_rs request DIR
//!
//! dicom-ul has PDUs, but no DIMSE: commands are those of DIR, responses with the message ID and the
//! presentation context of their request.

mod accept;
mod command;
mod request;

use std::process::ExitCode;

pub const VERIFICATION: &str = "1.2.840.10008.1.1";
pub const STORAGE: &str = "1.2.840.10008.5.1.4.1.1.7";
pub const IMPLICIT: &str = "1.2.840.10008.1.2";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["accept", mode, directory] => accept::main(mode, directory, 16384),
        ["accept", mode, directory, max] => {
            accept::main(mode, directory, max.parse().expect("MAX is a number"))
        }
        ["request", directory] => request::main(directory),
        _ => {
            eprintln!("dicom_rs accept MODE DIR [MAX] | dicom_rs request DIR");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
