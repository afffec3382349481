//! The slots of netif rings (xen/io/netif.h), and how frames are put together from them.
//!
//! In: slots that were copied once to private memory. Out: frames whose every offset and length was
//! checked, or the reason why not. Never: reads a ring or a page by itself, or trusts an id.
//!
//! TX and RX are named from the frontend's point of view: TX requests are read by the backend, RX
//! responses by the frontend.
#![deny(clippy::arithmetic_side_effects)]

mod frame;
mod slot;

pub use frame::{
    RxAnswer, RxFrame, TX_SLOTS_FATAL, TxAnswer, TxData, TxFault, TxFrame, TxPacket, read_rx,
    read_tx,
};
pub use slot::{
    BadExtra, Extra, ExtraKind, RxFlags, RxRequest, RxResponse, Status, TxFlags, TxRequest,
    TxResponse,
};

use crate::ring::Layout;

/// A TX ring: slots of 12 bytes.
#[derive(Debug)]
pub enum Tx {}

impl Layout for Tx {
    type Slot = [u8; 12];
    const SLOT_SIZE: usize = 12;
}

/// An RX ring: slots of 8 bytes.
#[derive(Debug)]
pub enum Rx {}

impl Layout for Rx {
    type Slot = [u8; 8];
    const SLOT_SIZE: usize = 8;
}

/// Bytes of an Ethernet header: nothing shorter is a frame.
pub const ETH_HEADER: u32 = 14;
