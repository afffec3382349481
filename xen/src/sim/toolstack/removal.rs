//! The removal of a device, in libxl's order (libxl__initiate_device_generic_remove and what follows).

use super::{Failure, Progress, VifSpec, WHO};
use crate::sim::xenstored::Store;
use crate::store::StoreError;
use std::format;
use std::string::String;

pub(super) struct Removal {
    spec: VifSpec,
    /// The frontend's directory goes first, in the same transaction that asks the backend to close.
    force: bool,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Until `state` of the backend is 6.
    Closed,
    /// Until the backend domain has removed its directory.
    Removed,
    /// Nothing more.
    Over,
}

impl Removal {
    pub(super) const fn new(spec: VifSpec, force: bool) -> Self {
        Self { spec, force, stage: Stage::Closed }
    }

    /// The node whose changes matter now; empty when it is over.
    pub(super) fn watched(&self) -> String {
        match self.stage {
            Stage::Closed => format!("{}/state", self.spec.backend()),
            Stage::Removed => self.spec.backend(),
            Stage::Over => String::new(),
        }
    }

    /// Asks the backend to close. If its directory is gone already, all that is left is cleaning up.
    pub(super) fn begin(&mut self, store: &mut Store) -> Result<(), StoreError> {
        let back = self.spec.backend();
        let id = store.begin(WHO)?;
        let tx = Some(id);
        let state = store.read(WHO, tx, &format!("{back}/state"));
        if self.force {
            store.remove(WHO, tx, &self.spec.frontend())?;
        }
        if let Ok(state) = &state {
            store.write(WHO, tx, &format!("{back}/online"), b"0")?;
            if state != b"6" {
                store.write(WHO, tx, &format!("{back}/state"), b"5")?;
            }
        }
        store.end(WHO, id, true)?;
        if state.is_err() {
            self.over(store, Progress::Done);
        }
        Ok(())
    }

    /// Looks at what is awaited and goes on if it has come.
    pub(super) fn advance(&mut self, store: &mut Store, late: bool) -> Progress {
        match self.stage {
            Stage::Closed => {
                let state = store.read(WHO, None, &format!("{}/state", self.spec.backend()));
                match state.as_deref() {
                    Ok(b"6") if self.spec.driver_domain => {
                        self.stage = Stage::Removed;
                        Progress::Waiting
                    }
                    Ok(b"6") => self.over(store, Progress::Done),
                    Ok(_) if late => self.over(store, Progress::Failed(Failure::NotClosed)),
                    Ok(_) => Progress::Waiting,
                    Err(_) => self.over(store, Progress::Failed(Failure::RemovedEarly)),
                }
            }
            Stage::Removed => match store.read(WHO, None, &self.spec.backend()) {
                Err(_) => self.over(store, Progress::Done),
                Ok(_) if late => self.over(store, Progress::Failed(Failure::NotRemoved)),
                Ok(_) => Progress::Waiting,
            },
            Stage::Over => Progress::Done,
        }
    }

    /// Cleans up. A detach that failed leaves what is there, as libxl does without force.
    fn over(&mut self, store: &mut Store, progress: Progress) -> Progress {
        self.stage = Stage::Over;
        if progress == Progress::Done || self.force {
            let paths = [self.spec.frontend(), self.spec.libxl(), self.spec.backend()];
            for path in paths {
                // Already gone is as good.
                let _ = store.remove(WHO, None, &path);
            }
            let above =
                format!("/local/domain/{}/backend/vif/{}", self.spec.back.0, self.spec.front.0);
            if store.directory(WHO, None, &above).is_ok_and(|names| names.is_empty()) {
                let _ = store.remove(WHO, None, &above);
            }
        }
        progress
    }
}
