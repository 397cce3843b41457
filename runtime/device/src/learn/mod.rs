//! `revoada learn`: trains a classifier's head on labelled pictures of this device, judges it, puts it into the model, and
//! forgets the pictures.

mod courtesy;
mod evaluate;
mod forget;
mod head;
mod merge;
mod subject;
mod train;

use clap::Subcommand;

use crate::Global;

#[derive(Debug, clap::Args)]
#[command(after_help = "Pictures lie as FOLDER/LABEL/picture.jpg.\n\n\
    Examples:\n  \
    revoada learn train model.onnx --data pictures --output head.safetensors\n  \
    revoada learn evaluate model.onnx --data others --weights head.safetensors\n  \
    revoada learn merge model.onnx --weights head.safetensors --output new.onnx\n  \
    revoada learn forget --data pictures                 what was made of them; with --pictures those, too")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Train the last layers on labelled pictures, at low priority; writes their weights.
    Train(Box<train::Args>),
    /// Say how often weights are right about labelled pictures.
    Evaluate(Box<evaluate::Args>),
    /// Write the model with other weights in the place of its last layer.
    Merge(merge::Args),
    /// Erase what was made of a folder's pictures.
    Forget(forget::Args),
}

pub(crate) fn run(args: Args, global: &Global) -> anyhow::Result<()> {
    match args.verb {
        Verb::Train(args) => train::run(&args, global),
        Verb::Evaluate(args) => evaluate::run(&args, global),
        Verb::Merge(args) => merge::run(&args),
        Verb::Forget(args) => forget::run(&args),
    }
}
