// Numbers and names, as people read them. The same forms as on the command line.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

export function size(bytes) {
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${Math.round(value)} B` : `${value.toFixed(1)} ${UNITS[unit]}`;
}

export function rate(bytes) {
  return `${size(bytes)}/s`;
}

export function count(number) {
  return number.toLocaleString("en").replaceAll(",", "\u202f");
}

export function some(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

export function percent(part, whole) {
  return whole > 0 ? `${Math.round((part * 100) / whole)}\u202f%` : "–";
}

/** A span of time: `45 s`, `12 min`, `3 h 5 min`, `4 days`. */
export function span(seconds) {
  const whole = Math.max(0, Math.ceil(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.floor(whole / 60)} min`;
  if (whole < 172800) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} days`;
}

export function ago(unixMs) {
  const seconds = (Date.now() - unixMs) / 1000;
  return seconds < 0 ? "in the future" : `${span(seconds)} ago`;
}

export function moment(unixMs) {
  const date = new Date(unixMs);
  const two = (number) => String(number).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** The beginning of an id: enough to tell two apart. The ids of peers all begin alike, so theirs is the end. */
export function short(id) {
  return id.slice(0, 10);
}

export function peer(id) {
  return `…${id.slice(-6)}`;
}
