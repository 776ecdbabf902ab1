//! Matrix products on slices with strides, and the three that a linear layer needs.

/// A matrix inside a slice: element `(i, j)` lies at `i * rows + j * columns`.
#[derive(Debug, Clone, Copy)]
pub struct Mat<'a> {
    /// Storage, from the first element.
    pub data: &'a [f32],
    /// Distance between rows.
    pub rows: usize,
    /// Distance between columns.
    pub columns: usize,
}

impl<'a> Mat<'a> {
    /// Row-major with rows `stride` apart.
    pub fn new(data: &'a [f32], stride: usize) -> Mat<'a> {
        Mat { data, rows: stride, columns: 1 }
    }

    /// Transposed view.
    pub fn t(self) -> Mat<'a> {
        Mat { data: self.data, rows: self.columns, columns: self.rows }
    }
}

/// `c = [c +] beta · a b`, with `c` `[m, n]` row-major and rows `stride` apart, `a` `[m, k]`, `b` `[k, n]`.
///
/// # Panics
/// If a slice is too short for its shape: a defect of the caller, never of input.
pub fn matmul(
    (m, n, k): (usize, usize, usize),
    a: Mat,
    b: Mat,
    c: &mut [f32],
    stride: usize,
    add: bool,
    beta: f32,
) {
    if m == 0 || n == 0 {
        return;
    }
    let last = |mat: Mat, i: usize, j: usize| (i - 1) * mat.rows + (j - 1) * mat.columns;
    assert!(k > 0 && (m - 1) * stride + n <= c.len(), "product larger than its place");
    assert!(last(a, m, k) < a.data.len() && last(b, k, n) < b.data.len(), "factor smaller than its shape");
    // SAFETY: the assertions above bound every address that is read or written; `c` is borrowed exclusively.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            stride as isize,
            add,
            a.data.as_ptr(),
            a.columns as isize,
            a.rows as isize,
            b.data.as_ptr(),
            b.columns as isize,
            b.rows as isize,
            1.0,
            beta,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `y = x Wᵀ`, or added to `y`: `x` `[n, inputs]`, `w` `[outputs, inputs]`, `y` `[n, outputs]`.
pub fn linear(n: usize, inputs: usize, outputs: usize, x: &[f32], w: &[f32], y: &mut [f32], add: bool) {
    matmul((n, outputs, inputs), Mat::new(x, inputs), Mat::new(w, inputs).t(), y, outputs, add, 1.0);
}

/// `dx = dy W`, or added to `dx`.
pub fn linear_dx(n: usize, inputs: usize, outputs: usize, dy: &[f32], w: &[f32], dx: &mut [f32], add: bool) {
    matmul((n, inputs, outputs), Mat::new(dy, outputs), Mat::new(w, inputs), dx, inputs, add, 1.0);
}

/// `dw += dyᵀ x`.
pub fn linear_dw(n: usize, inputs: usize, outputs: usize, dy: &[f32], x: &[f32], dw: &mut [f32]) {
    matmul((outputs, inputs, n), Mat::new(dy, outputs).t(), Mat::new(x, inputs), dw, inputs, true, 1.0);
}
