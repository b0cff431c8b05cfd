//! Messages between the builder, its workers and their launchers.
//!
//! A frame is a length of four bytes and a postcard message. Descriptors travel with the length, so that they belong to
//! exactly one message: the kernel never joins bytes across them.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Error, Result, Syscall};

/// The largest message: the index of a layer with some million entries.
const LIMIT: u32 = 256 << 20;

/// The most descriptors that go with a message.
const DESCRIPTORS: usize = 4;

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

impl Channel {
    /// Takes over a connected socket.
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// The socket, for polling and shutting down.
    pub(super) fn stream(&self) -> &UnixStream {
        &self.0
    }

    /// Sends a message, and descriptors with it.
    pub(super) fn send(&mut self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        let bytes = postcard::to_stdvec(message).map_err(|_| Error::Protocol("sender"))?;
        let length = u32::try_from(bytes.len()).ok().filter(|&length| length <= LIMIT);
        let length = length.ok_or(Error::Protocol("sender"))?.to_le_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Error::Protocol("sender"));
        }
        // The first byte carries the descriptors; a short write is completed without them.
        let flags = SendFlags::NOSIGNAL;
        let sent = retry(|| rustix::net::sendmsg(&self.0, &[IoSlice::new(&length)], &mut control, flags))
            .on("sendmsg", "the socket")?;
        self.0.write_all(&length[sent..]).and_then(|()| self.0.write_all(&bytes)).on("write", "the socket")
    }

    /// Receives a message and its descriptors; `None` when the other end is closed.
    pub(super) fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<(T, Vec<OwnedFd>)>> {
        let mut length = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received =
            retry(|| rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut length)], &mut control, flags));
        let received = match received {
            // A worker that dies with unread bytes in its socket resets the connection: that is an end, too.
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => other.on("recvmsg", "the socket")?.bytes,
        };
        if received == 0 {
            return Ok(None);
        }
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                descriptors.extend(fds);
            }
        }
        self.0.read_exact(&mut length[received..]).on("read", "the socket")?;
        let length = u32::from_le_bytes(length);
        if length > LIMIT {
            return Err(Error::Protocol("sender"));
        }
        // The length is not believed before the bytes are there.
        let mut bytes = Vec::new();
        (&self.0).take(length.into()).read_to_end(&mut bytes).on("read", "the socket")?;
        let message = postcard::from_bytes(&bytes).map_err(|_| Error::Protocol("sender"))?;
        Ok(Some((message, descriptors)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn retry<T>(call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    rustix::io::retry_on_intr(call)
}

/// A connected pair of sockets: one for us, and one to be the standard input of a process of ours. No descriptor number
/// has to be agreed upon that way.
pub(super) fn pair() -> Result<(Channel, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair().on("socketpair", "AF_UNIX")?;
    Ok((Channel::new(ours), theirs.into()))
}

/// The channel that is our standard input.
pub(super) fn inherited() -> Result<Channel> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().on("fcntl", "the standard input")?;
    Ok(Channel::new(stdin.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    #[test]
    fn messages_arrive_with_their_own_descriptors() {
        let (mut ours, theirs) = pair().unwrap();
        let mut theirs = Channel::new(theirs.into());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"layer").unwrap();
        file.rewind().unwrap();
        ours.send(&1_u32, &[]).unwrap();
        ours.send(&2_u32, &[file.as_fd()]).unwrap();
        ours.send(&3_u32, &[]).unwrap();
        drop(ours);
        assert!(matches!(theirs.receive::<u32>().unwrap(), Some((1, fds)) if fds.is_empty()));
        let (number, mut fds) = theirs.receive::<u32>().unwrap().unwrap();
        let mut text = String::new();
        std::fs::File::from(fds.pop().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!((number, text.as_str()), (2, "layer"));
        assert!(matches!(theirs.receive::<u32>().unwrap(), Some((3, fds)) if fds.is_empty()));
        assert!(theirs.receive::<u32>().unwrap().is_none());
    }

    #[test]
    fn a_length_without_its_bytes_is_an_error() {
        let (ours, theirs) = pair().unwrap();
        ours.stream().write_all(&100_u32.to_le_bytes()).unwrap();
        drop(ours);
        assert!(Channel::new(theirs.into()).receive::<String>().is_err());
    }
}
