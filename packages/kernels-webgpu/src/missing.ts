/** Operations without a shader yet: each throws and says so. */

import { type Kernels, LowbitError } from '@lowbit/core'

/** Groups of the kernels' contract that are not done yet, and why. */
export const NOT_YET = { cache: 'no shaders for caches in few bits yet' } as const

export function missing<Name extends keyof Kernels>(...names: Name[]): Pick<Kernels, Name> {
  const refuse = (name: string) => () => {
    throw new LowbitError(
      'not-supported',
      `WebGPU has no kernel for ${name} yet; run it with --device cpu`,
    )
  }
  return Object.fromEntries(names.map((name) => [name, refuse(name)])) as unknown as Pick<
    Kernels,
    Name
  >
}
