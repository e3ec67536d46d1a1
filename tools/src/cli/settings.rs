//! Arguments and help of `pond control`.

use std::ffi::OsStr;

use clap::builder::TypedValueParser;
use clap::{Args, Subcommand, ValueEnum};

/// Read and change the settings of the control table
///
/// Settings belong to this copy of the pond and are never replicated, as factory_mode:NAME, which says
/// how the factory NAME runs here. Without an action all settings are listed.
#[derive(Args, Debug)]
#[command(after_long_help = crate::commands::control_help())]
#[command(args_conflicts_with_subcommands = true)]
pub struct ControlArgs {
    /// Trigger something instead: sync does what `pond sync` does, also on a replica
    #[arg(long, value_enum)]
    pub mode: Option<ControlMode>,

    #[command(subcommand)]
    pub action: Option<ControlAction>,
}

/// What `pond control --mode` triggers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ControlMode {
    /// Commit everything now and run the post-commit factories.
    Sync,
}

/// What to do with settings.
#[derive(Subcommand, Debug)]
pub enum ControlAction {
    /// Print the value of a setting
    Get {
        /// Its name
        #[arg(value_parser = SettingName)]
        key: String,
    },
    /// Change a setting; it is committed at once
    Set {
        /// Its name
        #[arg(value_parser = SettingName)]
        key: String,
        /// Its value
        value: String,
    },
    /// Take a setting back: its default holds again; it is committed at once
    Unset {
        /// Its name
        #[arg(value_parser = SettingName)]
        key: String,
    },
    /// List all settings: what holds, and whether it was set here or is the default
    List,
}

/// The name of a setting: any text, of which the command itself says what it is; shells complete those that there are.
#[derive(Clone)]
struct SettingName;

impl TypedValueParser for SettingName {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        clap::builder::StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = clap::builder::PossibleValue> + '_>> {
        let names = pond_steward::settings::SETTINGS.iter().map(|setting| setting.name);
        let names =
            names.filter(|name| !name.ends_with(':')).chain(["factory_mode:remote", "factory_mode:exec-log"]);
        // Help lists them by themselves, with what they are for.
        Some(Box::new(names.map(clap::builder::PossibleValue::new)))
    }
}
