//! A server whose ledger is smaller than this client has seen it: it lags, or it lost what it signed.
//!
//! A read names the size of the newest verified head (`min_size`), and an honest server waits until it has
//! as much, or says that it is behind. One word does not tell a copy that is late from a server that was
//! put back to an older state, and a server that wants to hide entries can say it for ever. So what counts
//! is the head that it shows when no size is named:
//!
//! | its newest head | means |
//! |---|---|
//! | is as large as the trusted one, or larger | it has caught up: the call is made again, once |
//! | is smaller, and a proof from some server holds | it lags ([`Error::Behind`]) |
//! | is smaller, and a proof fails, or every server denies one | fork evidence, and nothing is believed any more |
//! | is smaller, and a server that may have the proof does not answer | nothing is known ([`Error::NotShown`]) |
//! | none | [`Error::Behind`] without a size |

use deed_proto::v1;

use crate::{
    connection::Server, error::Error, head_tracker::HeadTracker, ledger::Ledger, retry::within,
};

impl Ledger {
    /// Has the server at `position`, which says that it is behind, show its newest head, and compares that
    /// with what is trusted. Returns nothing if the server is not behind.
    pub(crate) async fn look_behind(
        &self,
        tracker: &HeadTracker,
        position: usize,
    ) -> Result<(), Error> {
        let server = self.connection.at(position);
        let trusted = tracker.newest();
        let behind = |found| Error::Behind {
            server: server.url().to_owned(),
            found,
            trusted: trusted.head.size.get(),
        };
        // Asked once: a server that hides its head is not given more time than one that shows it.
        let note = self.shown_head(server).await.ok_or_else(|| behind(None))?;
        // They have waited by now.
        let head = self.compare_note(tracker, &note, false).await?.head;
        if head.size < trusted.head.size {
            return Err(behind(Some(head.size.get())));
        }
        Ok(())
    }

    /// Returns the newest head that a server shows; it is not verified.
    async fn shown_head(&self, server: &Server) -> Option<bytes::Bytes> {
        let request = v1::GetTreeHeadRequest {
            ledger: self.shared.name.clone(),
            consistency_from: None,
            min_size: 0,
        };
        let mut log = server.log();
        let answer = within(self.shared.timeout, log.get_tree_head(request)).await;
        Some(answer.ok()?.into_inner().checkpoint)
    }
}
