/** Figures as people read them. */

const SIZES = ['B', 'kB', 'MB', 'GB', 'TB']

/** 10498408 → "10.5 MB". */
export function bytes(count: number): string {
  let size = count
  let unit = 0
  while (size >= 999.5 && unit < SIZES.length - 1) {
    size /= 1000
    unit++
  }
  return `${size.toFixed(unit === 0 || size >= 99.95 ? 0 : 1)} ${SIZES[unit]}`
}

/** 75.3 → "1 min 15 s". */
export function duration(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}

/** 0.00123 → "0.12 %", with two figures that say something. */
export function percent(share: number): string {
  const value = share * 100
  if (value === 0) return '0 %'
  if (value < 0.01) return `${value.toExponential(0)} %`
  return `${value < 10 ? value.toFixed(2) : value.toFixed(1)} %`
}

/** 5248000 → "5.2 M". */
export function count(value: number): string {
  if (value < 10_000) return String(value)
  if (value < 1e6) return `${(value / 1e3).toFixed(1)} k`
  if (value < 1e9) return `${(value / 1e6).toFixed(1)} M`
  return `${(value / 1e9).toFixed(2)} G`
}

/** Seconds that are left if it goes on as it did, counted from where this run began. */
export function secondsLeft(elapsed: number, from: number, done: number): number | undefined {
  const progress = done - from
  if (elapsed < 1 || progress <= 0.005) return undefined
  return (elapsed * (1 - done)) / progress
}
