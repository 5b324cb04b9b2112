import { LowbitError } from '../errors.ts'
import type { Tensor } from '../plugins/kernels.ts'
import type { QuantizeInput } from '../plugins/quantizer.ts'

/** The Hessian of a layer's inputs, which `method` can't do without; refused where it is missing or of another size. */
export function requireHessian(
  method: string,
  { name, weight: { columns }, hessian }: QuantizeInput,
): Tensor {
  if (!hessian) {
    throw new LowbitError('bad-input', `${method} needs the Hessian of the layer’s inputs`, {
      tensor: name,
    })
  }
  if (hessian.rows !== columns || hessian.columns !== columns) {
    throw new LowbitError(
      'bad-input',
      `the Hessian is ${hessian.rows} × ${hessian.columns}, the weight has ${columns} columns`,
      { tensor: name },
    )
  }
  return hessian
}
