/** What the driver's error codes mean for the person who sees them. */

import { LowbitError } from '@lowbit/core'

interface Meaning {
  readonly code: string
  readonly text: string
}

const MEANINGS: Readonly<Record<number, Meaning>> = {
  2: { code: 'out-of-memory', text: 'the GPU has no memory left' },
  3: { code: 'device-lost', text: 'the driver is shutting down' },
  100: { code: 'no-device', text: 'the NVIDIA driver finds no GPU here' },
  101: { code: 'no-device', text: 'there is no GPU of this number' },
  200: { code: 'not-supported', text: 'the driver does not know the format of the kernels' },
  209: { code: 'not-supported', text: 'there are no kernels for this GPU: it needs 7.5 or later' },
  222: { code: 'not-supported', text: 'the driver is too old to compile the kernels' },
  700: { code: 'device-lost', text: 'a kernel touched memory that is not its own' },
  701: { code: 'not-supported', text: 'a kernel asks for more of a block than the GPU has' },
  702: { code: 'device-lost', text: 'a kernel ran longer than the system allows' },
  719: { code: 'device-lost', text: 'a kernel failed while running' },
  803: { code: 'no-device', text: "the driver and the system's CUDA libraries do not match" },
  804: { code: 'no-device', text: 'the driver does not work with this GPU' },
  999: { code: 'device-lost', text: 'the driver failed for a reason that it does not know' },
}

/** After these nothing works any more in this process's context. */
const LASTING = [3, 700, 702, 719, 999]

export const isLasting = (result: number): boolean => LASTING.includes(result)

export function driverError(
  result: number,
  doing: string,
  text: { readonly name: string; readonly description: string },
): LowbitError {
  const { code, text: plain } = MEANINGS[result] ?? {
    ...{ code: 'device-failed', text: text.description || 'the driver refused a call' },
  }
  const name = text.name || `CUDA error ${result}`
  return new LowbitError(code, `${plain} (${name}, ${doing})`)
}
