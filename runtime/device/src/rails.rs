//! Which of a Jetson's power rails make up what the whole board takes.

/// What everything takes together, by the names that NVIDIA gives these rails, from Nano to Thor.
const TOTAL: [&str; 4] = ["VDD_IN", "POM_5V_IN", "VDD_5V_IN", "VIN"];

/// Fed by another rail that is monitored as well, or by none.
const PARTIAL: [&str; 3] = ["VDDQ_VDD2_1V8AO", "NC", ""];

/// The whole input where that is a rail, else those that add up.
pub(crate) fn of_board<R>(rails: impl IntoIterator<Item = R>, name: impl Fn(&R) -> &str) -> Vec<R> {
    let mut rails: Vec<R> = rails.into_iter().filter(|rail| !PARTIAL.contains(&name(rail))).collect();
    match TOTAL.iter().find_map(|total| rails.iter().position(|rail| name(rail) == *total)) {
        Some(total) => vec![rails.swap_remove(total)],
        None => rails,
    }
}

#[cfg(test)]
mod tests {
    use super::of_board;

    #[test]
    fn the_input_is_preferred_to_rails_that_add_up() {
        let of = |rails: &[&'static str]| of_board(rails.to_vec(), |rail| rail);
        assert_eq!(of(&["VDD_GPU", "VIN", "VIN_SYS_5V0"]), ["VIN"]);
        assert_eq!(of(&["VDD_GPU_SOC", "NC", "VDDQ_VDD2_1V8AO", "VIN_SYS_5V0"]), ["VDD_GPU_SOC", "VIN_SYS_5V0"]);
        assert_eq!(of(&["NC"]), [""; 0]);
    }
}
