import { LowbitError } from '../errors.ts'
import type { Kernels, Tensor } from '../plugins/kernels.ts'

/** Refuses NaN and infinities: no scale can be found for them, and they would spread. */
export async function assertFinite(
  kernels: Kernels,
  weight: Tensor,
  tensor: string,
): Promise<void> {
  const squares = await kernels.distance(weight, undefined)
  if (Number.isFinite(squares)) return
  throw new LowbitError(
    'not-finite',
    'the weight holds NaN or infinite values and can not be quantized; exclude the tensor or mend the checkpoint',
    { tensor },
  )
}
